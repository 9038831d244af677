"""The method: rewards on many channels -> one advantage per rollout. Knows no trainer, no judge and no file."""
