"""python -m cifar10 predict: from files to rows, in bounded memory."""
