"""Label efficiency: learning curves of each strategy through the whole service, compared with random selection."""
