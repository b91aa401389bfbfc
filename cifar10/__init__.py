"""Image classification on CIFAR-10: a CNN from scratch beside a pretrained backbone fine-tuned in two phases."""
