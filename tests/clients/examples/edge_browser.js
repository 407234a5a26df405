async function generateImage(prompt) {
    try {
        const response = await fetch('https://flux-image-generator.example.workers.dev', {
            method: 'POST',
            headers: { 'Content-Type': 'application/json' },
            body: JSON.stringify({ 
                prompt: prompt,
                steps: 4,
                aspectRatio: "1:1" 
            })
        });

        if (response.ok) {
            const blob = await response.blob();
            const imageUrl = URL.createObjectURL(blob);
            
            // Display image
            const img = document.createElement('img');
            img.src = imageUrl;
            document.body.appendChild(img);
            
            // Show cost
            const cost = response.headers.get('X-Cost-THB');
            console.log(`Cost: ${cost} บาท`);
        } else {
            const error = await response.json();
            alert(`Error: ${error.error}`);
        }
    } catch (err) {
        console.error('Failed:', err);
    }
}
