from hypothesis import settings

# A busy machine is no counterexample.
settings.register_profile("novactl", deadline=None)
settings.load_profile("novactl")
