"""A finished run for other programs: one ONNX file, an exported PyTorch program, or a folder that timm opens."""
