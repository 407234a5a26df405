curl -X POST https://flux-image-generator.example.workers.dev \
  -H "Content-Type: application/json" \
  -d '{"prompt": "a beautiful sunset"}' \
  -o image.png
