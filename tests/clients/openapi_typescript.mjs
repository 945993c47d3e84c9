// Generate types with openapi-typescript: node openapi_typescript.mjs CONTRACT OUTPUT. Files are Blobs.

import { writeFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

import openapiTS, { astToString } from "openapi-typescript";
import ts from "typescript";

const [contract, output] = process.argv.slice(2);
const blob = ts.factory.createTypeReferenceNode("Blob");
const types = await openapiTS(pathToFileURL(contract), {
  defaultNonNullable: false,
  transform: (schema) => (schema.format === "binary" ? blob : undefined),
});
writeFileSync(output, astToString(types));
