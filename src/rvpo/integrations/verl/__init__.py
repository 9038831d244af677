"""RVPO in verl: `estimator` is the method, `hooks` how it gets into a trainer that knows nothing of it."""
