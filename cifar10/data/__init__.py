"""From image files to finished batches: sources, the datamodule, whole-batch transforms."""
