"""Questions to answers: tasks, prompts, engines and the Ray actors that run them."""
