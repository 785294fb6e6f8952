"""Host adapters: each turns a sampler into steps, and a negative into conditioning."""
