"""What keeps a search's scores from being compared with others' as they are, in words."""

from mergelib.workbench import Workbench


def reservations(bench: Workbench) -> list[str]:
    """A sentence for each thing that a reader of scores must know.

    Args:
        bench: the search's workbench.
    """
    sentences = [
        f"The search saw public test data ({source}): scores on {name} cannot be compared with "
        "those of models that did not."
        for name, source in bench.test_sets.items()
    ]
    compute = bench.search.compute
    if compute.quantization != "none":
        sentences.append(
            f"All models answered with weights rounded to {compute.quantization}; the exported "
            "weights are not rounded."
        )
    if compute.engine == "vllm":
        sentences.append("All models answered in vLLM, whose scores may differ from lm-eval's.")
    return sentences
