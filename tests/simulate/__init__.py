"""The deterministic simulation: production code on a virtual clock, with every fault chosen by a seed."""
