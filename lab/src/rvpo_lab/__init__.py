"""The laboratory of rvpo: which method neglects which reward. Imports `rvpo`; nothing of `rvpo` imports it."""
