"""What changes the world: sagas, one a file, and the engine that journals them."""
