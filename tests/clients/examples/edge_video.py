def generate_video_frames(prompts, aspect_ratio="16:9"):
    """Generate multiple frames for video"""
    frames = []
    total_cost = 0
    
    for i, prompt in enumerate(prompts):
        print(f"Generating frame {i+1}/{len(prompts)}: {prompt}")
        
        response = requests.post(
            "https://flux-image-generator.example.workers.dev",
            json={"prompt": prompt, "aspectRatio": aspect_ratio}
        )
        
        if response.status_code == 200:
            frame_data = response.content
            frames.append(frame_data)
            
            cost = float(response.headers.get('X-Cost-THB', 0))
            total_cost += cost
            
            # Save individual frame
            with open(f"frame_{i:04d}.png", "wb") as f:
                f.write(frame_data)
        else:
            print(f"Failed to generate frame {i+1}")
    
    print(f"Generated {len(frames)} frames. Total cost: {total_cost:.2f} บาท")
    return frames

# Usage for video
prompts = [
    "a cat sitting in a garden, morning light",
    "a cat standing up in a garden, morning light", 
    "a cat walking in a garden, morning light"
]
frames = generate_video_frames(prompts)
