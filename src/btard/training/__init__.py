"""What a researcher uses: tasks, optimizers, checkpoints."""
