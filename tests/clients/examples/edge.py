import requests

def generate_image(prompt, steps=4, aspect_ratio="1:1"):
    url = "https://flux-image-generator.example.workers.dev"
    
    response = requests.post(url, json={
        "prompt": prompt,
        "steps": steps,
        "aspectRatio": aspect_ratio
    })
    
    if response.status_code == 200:
        # Save image
        with open("generated.png", "wb") as f:
            f.write(response.content)
        
        # Get cost info
        cost = response.headers.get('X-Cost-THB')
        print(f"Generated! Cost: {cost} บาท")
        return True
    else:
        print(f"Error: {response.json()}")
        return False

# Usage
generate_image("a cute cat wearing a hat", steps=6, aspect_ratio="16:9")
