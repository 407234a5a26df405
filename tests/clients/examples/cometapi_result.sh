curl --location --request GET 'https://api.cometapi.com/flux/v1/get_result?id=1n6vvx3ykhrm80cphgnafcmvgg' \
--header 'Authorization: Bearer YOUR_API_KEY_HERE'
