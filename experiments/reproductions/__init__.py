"""Figures of papers, computed anew: a module each, with what it computes apart from how it is drawn.

A module has three names:
  tables(...): computes and returns {name: rows}; a row is a flat dict of numbers and labels, in long form (one
    measurement a row, with its method and its seed), so that a table is a CSV file as it stands. Column names end in
    their unit where they have one. All settings are keyword arguments with the notebook's values as defaults.
  figure(tables): draws them and returns the matplotlib figure. It computes nothing that a table does not hold.
  SMALL: arguments of `tables` with which it takes seconds, for the tests; None where the whole does.

`notebooks/NAME.ipynb` tells what `NAME` shows; `python -m experiments.figures NAME` writes its PNG and CSV files.
"""
