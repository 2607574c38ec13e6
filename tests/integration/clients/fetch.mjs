// Node's fetch. Arguments: URLs. A line for each.

for (const url of process.argv.slice(2)) {
  try {
    const response = await fetch(url);
    console.log(url, response.status, await response.text());
  } catch (error) {
    console.log(url, String(error), String(error.cause));
  }
}
