import requests

API_URL = "http://<your-server-ip>:8000"
HEADERS = {"X-API-Key": "<your-api-key>"}

# Text-to-Image
res = requests.post(
    f"{API_URL}/generate",
    headers=HEADERS,
    json={
        "prompt": "A serene mountain landscape at golden hour",
        "width": 1024,
        "height": 1024,
    },
)
print("Image URL:", res.json()["image_url"])

# Image Editing
res = requests.post(
    f"{API_URL}/edit",
    headers=HEADERS,
    json={
        "prompt": "Change the sky to a starry night",
        "image_url": "https://example.com/photo.jpg",
    },
)
print("Edited image:", res.json()["image_url"])
