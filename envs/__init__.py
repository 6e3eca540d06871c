"""The project's environments. Importing this registers them; Gymnasium itself looks at no entry points since 1.0."""

import gymnasium as gym

if "TargetReaching-v0" not in gym.registry:
    gym.register("TargetReaching-v0", "pmoe.envs.target_reaching:TargetReaching", max_episode_steps=200)
