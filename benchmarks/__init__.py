"""Programs that measure the method on real features."""
