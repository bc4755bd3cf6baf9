"""Masked diffusion language model trained by the bound of its likelihood (Sahoo et al., 2024, arXiv 2406.07524).

python -m experiments.diffusion --config=configs/mdlm_elbo.py --workdir=runs/mdlm_elbo

Not measured yet.
"""

from configs import diffusion


def get_config():
    return diffusion.warm_up()
