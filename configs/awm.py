"""Advantage weighted matching (Xue et al., 2025, arXiv 2509.25050) on a flow model of eight Gaussians in the plane.

python -m experiments.flow --config=configs/awm.py --workdir=runs/awm

Not measured yet.
"""

from configs import flow


def get_config():
    return flow.base()
