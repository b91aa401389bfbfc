"""A look at a data set before anything is trained on it: `python -m cifar10 explore`."""
