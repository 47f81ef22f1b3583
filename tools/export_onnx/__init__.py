"""Export a captioner to ONNX."""
