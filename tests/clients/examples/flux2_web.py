from fl24bit import generate_image

image, seed, timings = generate_image(
    prompt="A beautiful sunset over mountains",
    seed=12345,           # Optional, random if None
    steps=25,             # Inference steps
    width=1344,           # Output width
    height=768,           # Output height
    local_encoder=False,  # Use remote encoder
    input_image=None,     # Optional PIL Image for reference
    strength=0.75         # Reference image strength
)

# image: PIL.Image
# seed: int (the seed that was used)
# timings: dict with 'encoding', 'diffusion', 'total'
