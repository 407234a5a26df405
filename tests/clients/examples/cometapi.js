const axios = require('axios');

const API_KEY = 'YOUR_API_KEY_HERE';
const BASE_URL = 'https://api.cometapi.com';

async function generateImage() {
  // Step 1: Generate image
  const response = await axios.post(
    `${BASE_URL}/flux/v1/flux-2-flex`,
    {
      prompt: 'ein fantastisches bild',
      width: 1024,
      height: 768,
      seed: 42,
      safety_tolerance: 2,
      output_format: 'jpeg'
    },
    {
      headers: {
        'Authorization': `Bearer ${API_KEY}`,
        'Content-Type': 'application/json'
      }
    }
  );
  
  const taskId = response.data.id;
  console.log(`Task ID: ${taskId}`);
  
  // Step 2: Poll for result
  while (true) {
    const result = await axios.get(
      `${BASE_URL}/flux/v1/get_result`,
      {
        headers: { 'Authorization': `Bearer ${API_KEY}` },
        params: { id: taskId }
      }
    );
    
    const { status, result: imageResult } = result.data;
    
    if (status === 'Ready') {
      console.log(`Image ready: ${imageResult.sample}`);
      return imageResult.sample;
    } else if (status === 'Error' || status === 'Failed') {
      throw new Error(`Generation failed: ${JSON.stringify(result.data)}`);
    }
    
    await new Promise(resolve => setTimeout(resolve, 2000));
  }
}

generateImage().catch(console.error);
