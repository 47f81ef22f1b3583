"""Captioning with ONNX Runtime in place of torch; what is read here is written by ``tools.export_onnx``."""
