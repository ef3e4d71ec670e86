"""T5, v1.0 and v1.1."""

from kdtw_jax.models.interface import Family
from kdtw_jax.models.t5.config import FLAGS, T5Config
from kdtw_jax.models.t5.costs import t5_costs
from kdtw_jax.models.t5.model import make_network, shallower

T5 = Family("t5", T5Config, make_network, t5_costs, T5Config.sized, FLAGS, shallower)
