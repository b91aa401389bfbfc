"""Two LightningModules: a CNN trained from scratch and a pretrained backbone with a new head."""
