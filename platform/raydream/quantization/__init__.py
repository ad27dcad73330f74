"""Networks that compute with few bits: ranges from images, integer ONNX files and programs, and layers' sensitivity.

`ranges` finds step sizes from images, `layers` assigns bits to layers, `sensitivity` measures the loss of each,
`onnx_static` and `pt2e` pass a network to the quantizers of ONNX Runtime and torchao, and `measuring` measures the
resulting files. The fake-quantized network itself is `raydream.networks.quantized`.
"""
