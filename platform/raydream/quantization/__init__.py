"""Networks that compute with few bits: ranges from images, integer ONNX files and programs, and what layers stand.

`ranges` finds step sizes from images, `layers` says which layers have how many bits, `sensitivity` measures what each
costs, `onnx_static` and `pt2e` hand a network to the quantizers of ONNX Runtime and torchao, and `measuring` looks at
the files that come of it. The fake-quantized network itself is `raydream.networks.quantized`.
"""
