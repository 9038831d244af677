"""Rewards as channels: what a reward function declares about its values, and rewards that ship with rvpo."""

from rvpo.rewards.declarations import Channel, scalar_reward, vector_reward

__all__ = ["Channel", "scalar_reward", "vector_reward"]
