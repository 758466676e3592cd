"""TFLite: `converter` and `onnx2tf` write it, `runtime` and `legacy` run it anywhere."""

import logging
import os

# Two dependencies of litert-torch warn at their import, of CUDA libraries and of an enumeration.
logging.getLogger("torchao").setLevel(logging.ERROR)
logging.getLogger("torch.utils._pytree").setLevel(logging.ERROR)

# The converter's C++ library announces optimisations on stderr that it has no use for here.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
