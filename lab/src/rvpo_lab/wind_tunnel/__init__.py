"""Wind tunnel: methods compared on thousands of random sets of conflicting criteria, with exact policies.

The model, which is a definition and not a fit to anything:

- **Instance.** M criteria and M independent yes-or-no decisions; decision j is on with probability
  `p_j = sigma(theta_j)`. Criterion j is met if decision j is on and, where it has an opponent i, decision i is
  off. Its pass rate is therefore exactly `p_j (1 - p_i)`; nothing is sampled to evaluate a policy. Each
  criterion has an opponent with probability `conflict`, any of the other M - 1 with equal chance.
- **Start.** Base rates b_j are drawn, and theta is set so that criterion j has pass rate b_j at first.
- **Grading.** Each verdict is flipped with probability `noise` and lost (NaN) with probability `missing`, both
  independently. `continuous` grades a criterion by a number instead of 0 or 1: uniform on [0.5, 1) where the
  verdict is "met", on [0, 0.5) where it is not.
- **Step.** P groups of G rollouts, their advantages A from `rvpo.compute_advantages`, whitened over the P G
  rollouts of the instance where the method has that step, and plain gradient ascent on
  `theta += learning_rate * mean_pg A (x - p)`, x being the rollout's decisions (REINFORCE).

Every method meets the same instances and the same random numbers: a rollout's decision j is `u_j < p_j` with the
same uniform u for all methods, so that differences between methods are paired. Decisions, flips, losses and
grades have streams of their own: a run with noise sees the same u as one without.

What the model leaves out: a policy that generalises between prompts, judges that err in a systematic way, and
answers of different lengths. It shows where a formula sends the pressure, not what a language model will score.

Its horizon: the first hundred steps of a real policy, over which the order of GDPO, the paper's form and the policy
level is the same (docs/findings.md). Decisions share no weights here, so a criterion that is rare stays learnable: in
the long run every method ends at 0.999 where nothing conflicts. Real policies lose criteria for good by then.
"""
