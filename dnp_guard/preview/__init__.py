"""Turn predictions x̂0 into pictures. Latents become RGB for the vision-language model only here."""
