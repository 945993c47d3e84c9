// Use the client that @hey-api/openapi-ts generates: node hey_api.js URL KEY.

import { deepStrictEqual, ok, strictEqual } from "node:assert";

import { formDataBodySerializer } from "./hey_api_client/client";
import { client } from "./hey_api_client/client.gen";
import {
  exportProject,
  fitProject,
  importProject,
  labelProject,
  listProjectLabels,
  queryProject,
} from "./hey_api_client";
import type { FitForm, FitRequest, LabelValue, SubmittedLabel } from "./hey_api_client";
import { npy } from "./npy";

const [url, key] = process.argv.slice(2);
const pool = Array.from({ length: 12 }, (_, row) => [row / 6 - 1, row / 6 - 0.9]);

async function main(): Promise<void> {
  client.setConfig({ baseUrl: url, auth: () => key, throwOnError: true });

  const labels: (LabelValue | null)[] = ["low", ...Array<null>(10).fill(null), "high"];
  const request: FitRequest = { project_id: "json", X: pool, y: labels, estimator: "gaussian_nb" };
  const fitted = await fitProject({ body: request, throwOnError: true });
  deepStrictEqual(fitted.data.classes, ["high", "low"]);

  const form: FitForm = {
    config: { project_id: "form", estimator: { name: "gaussian_nb" } },
    X: new Blob([npy(pool)], { type: "application/x-npy" }),
    y: new Blob([JSON.stringify([1, ...Array<null>(10).fill(null), 2])], { type: "application/json" }),
  };
  const sent = await fitProject({
    ...formDataBodySerializer,
    headers: { "Content-Type": null },
    body: form as unknown as FitRequest, // the generator knows only the first media type of a body
    throwOnError: true,
  });
  deepStrictEqual([sent.data.n_samples, sent.data.n_features, sent.data.classes], [12, 2, [1, 2]]);

  const query = await queryProject({
    body: { project_id: "json", batch_size: 3, strategy: "margin" },
    throwOnError: true,
  });
  const [first, ...rest] = query.data.indices;
  const records: SubmittedLabel[] = [
    { index: first, skip: true },
    ...rest.map((index) => ({ index, label: index > 5 ? "high" : "low" })),
  ];
  const labeled = await labelProject({
    body: { project_id: "json", labels: records, query_id: query.data.query_id },
    throwOnError: true,
  });
  deepStrictEqual([labeled.data.n_changed, labeled.data.n_skipped, labeled.data.model_version], [3, 1, 2]);

  const archive = await exportProject({ path: { project_id: "json" }, parseAs: "blob", throwOnError: true });
  ok(archive.data instanceof Blob);
  const copy = await importProject({ query: { project_id: "copy" }, body: archive.data, throwOnError: true });
  strictEqual(copy.data.project_id, "copy");
  const lists = await Promise.all(
    ["json", "copy"].map((project_id) => listProjectLabels({ path: { project_id }, throwOnError: true })),
  );
  deepStrictEqual(lists[0].data, lists[1].data);

  const problem = await queryProject({ body: { project_id: "nothing" }, throwOnError: false });
  deepStrictEqual([problem.error?.status, problem.error?.title], [404, "Not Found"]);
  console.log("done");
}

main().catch((error: unknown) => {
  console.error(error);
  process.exitCode = 1;
});
