"""How much the loss rises near some weights: in the worst direction, and on average."""

from isoloss.landscape.sharpness.average import Estimate, average_rise, m_sharpness
from isoloss.landscape.sharpness.ball import Ball, SharpnessError, adaptive_ball, euclidean_ball
from isoloss.landscape.sharpness.rescaling import ReluPair, find_relu_pair, rescaled
from isoloss.landscape.sharpness.worst import WorstRise, one_step_rise, worst_rise

__all__ = [
    "Ball",
    "Estimate",
    "ReluPair",
    "SharpnessError",
    "WorstRise",
    "adaptive_ball",
    "average_rise",
    "euclidean_ball",
    "find_relu_pair",
    "m_sharpness",
    "one_step_rise",
    "rescaled",
    "worst_rise",
]
