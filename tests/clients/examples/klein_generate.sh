curl -X POST http://<ip>:8000/generate \
  -H "Content-Type: application/json" \
  -H "X-API-Key: <key>" \
  -d '{
    "prompt": "A serene mountain landscape at golden hour",
    "width": 1024,
    "height": 1024
  }'
