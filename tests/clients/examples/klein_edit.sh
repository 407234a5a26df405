curl -X POST http://<ip>:8000/edit \
  -H "Content-Type: application/json" \
  -H "X-API-Key: <key>" \
  -d '{
    "prompt": "Change the sky to a starry night",
    "image_url": "https://example.com/photo.jpg"
  }'
