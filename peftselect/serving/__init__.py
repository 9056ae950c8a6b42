"""What is done with a trained adapter: predict, evaluate, merge, export, report, serve."""
