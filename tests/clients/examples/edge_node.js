const fetch = require('node-fetch');
const fs = require('fs');

async function generateImage(prompt, steps = 4, aspectRatio = "1:1") {
    try {
        const response = await fetch('https://flux-image-generator.example.workers.dev', {
            method: 'POST',
            headers: { 'Content-Type': 'application/json' },
            body: JSON.stringify({ prompt, steps, aspectRatio })
        });

        if (response.ok) {
            const buffer = await response.buffer();
            fs.writeFileSync('generated.png', buffer);
            
            console.log(`Cost: ${response.headers.get('X-Cost-THB')} บาท`);
            console.log(`Size: ${response.headers.get('X-Image-Width')}×${response.headers.get('X-Image-Height')}`);
            return buffer;
        } else {
            const error = await response.json();
            throw new Error(error.error);
        }
    } catch (err) {
        console.error('Generation failed:', err.message);
        return null;
    }
}

// Usage
generateImage("futuristic city at night", 6, "16:9");
