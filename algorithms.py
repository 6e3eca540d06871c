"""The algorithms that `pmoe run` knows, and the file of each."""

import warnings
from importlib import import_module
from types import ModuleType

ALGORITHMS = {
    "sac": "pmoe_sac",
    "ppo": "pmoe_ppo",
    "gating-sac": "baselines.gating_sac",
    "mcp-sac": "baselines.mcp_sac",
    "gumbel-sac": "baselines.gumbel_sac",
    "reinforce-sac": "baselines.reinforce_sac",
    "mrp-sac": "baselines.mrp_sac",
    "mcp-ppo": "baselines.mcp_ppo",
    "dac": "baselines.dac_ppo",
}


def load(algo: str) -> ModuleType:
    """An algorithm's file; the project's environments are there, too."""
    import_module(f"{__package__}.envs")
    warnings.filterwarnings("ignore", message=".*out of date")  # Gymnasium, of -v4: the paper's tables need it
    return import_module(f"{__package__}.{ALGORITHMS[algo]}")
