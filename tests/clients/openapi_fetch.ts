// Use openapi-fetch with the types that openapi-typescript generates: node openapi_fetch.js URL KEY.

import { deepStrictEqual, ok, strictEqual } from "node:assert";

import createClient from "openapi-fetch";

import type { components, paths } from "./openapi_fetch_schema";
import { npy } from "./npy";

type Form = components["schemas"]["FitForm"];

const [url, key] = process.argv.slice(2);
const pool = Array.from({ length: 12 }, (_, row) => [row / 6 - 1, row / 6 - 0.9]);
const client = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${key}` } });

function formData(parts: object): FormData {
  const data = new FormData();
  for (const [name, part] of Object.entries(parts)) {
    data.append(name, part instanceof Blob ? part : JSON.stringify(part));
  }
  return data;
}

async function main(): Promise<void> {
  const labels: (string | null)[] = ["low", ...Array<null>(10).fill(null), "high"];
  const fitted = await client.POST("/fit", {
    body: { project_id: "json", X: pool, y: labels, estimator: "gaussian_nb" },
  });
  deepStrictEqual(fitted.data?.classes, ["high", "low"]);

  const form: Form = {
    config: { project_id: "form", estimator: { name: "gaussian_nb" } },
    X: new Blob([npy(pool)], { type: "application/x-npy" }),
    y: new Blob([JSON.stringify([1, ...Array<null>(10).fill(null), 2])], { type: "application/json" }),
  };
  const sent = await client.POST("/fit", { body: form, bodySerializer: formData });
  deepStrictEqual([sent.data?.n_samples, sent.data?.n_features, sent.data?.classes], [12, 2, [1, 2]]);

  const query = await client.POST("/query", { body: { project_id: "json", batch_size: 3, strategy: "margin" } });
  ok(query.data);
  const [first, ...rest] = query.data.indices;
  const records: components["schemas"]["SubmittedLabel"][] = [
    { index: first, skip: true },
    ...rest.map((index) => ({ index, label: index > 5 ? "high" : "low" })),
  ];
  const labeled = await client.POST("/label", {
    body: { project_id: "json", labels: records, query_id: query.data.query_id },
  });
  deepStrictEqual([labeled.data?.n_changed, labeled.data?.n_skipped, labeled.data?.model_version], [3, 1, 2]);

  const archive = await client.GET("/projects/{project_id}/export", {
    params: { path: { project_id: "json" } },
    parseAs: "blob",
  });
  ok(archive.data);
  const copy = await client.POST("/projects/import", {
    params: { query: { project_id: "copy" } },
    body: archive.data,
    bodySerializer: (blob) => blob,
    headers: { "Content-Type": "application/zip" },
  });
  strictEqual(copy.data?.project_id, "copy");
  const lists = await Promise.all(
    ["json", "copy"].map((project_id) => client.GET("/projects/{project_id}/labels", { params: { path: { project_id } } })),
  );
  ok(lists[0].data);
  deepStrictEqual(lists[0].data, lists[1].data);

  const problem = await client.POST("/query", { body: { project_id: "nothing" } });
  deepStrictEqual([problem.error?.status, problem.error?.title], [404, "Not Found"]);
  console.log("done");
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
