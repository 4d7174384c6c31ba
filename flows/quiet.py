"""Other libraries' notes, kept off the terminal and out of the log."""

import logging
import os
import warnings


def be_quiet() -> None:
    """Turn down what is noise to a search; downloads show, and so do errors."""
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    warnings.filterwarnings("ignore")
    noisy = ("lm_eval", "transformers", "datasets", "mergekit", "httpx", "huggingface_hub")
    # transformers imports torchao where it is installed, which tells of kernels that do not load.
    for name in (*noisy, "torchao", "torch.utils._pytree"):
        logging.getLogger(name).setLevel(logging.ERROR)
