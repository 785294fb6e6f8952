"""Host adapters: each turns a sampler's run into steps, and a negative into conditioning."""
