/** Requests whose failure is shown to the user. */

import { showToast } from "./dom.js";
import { errorText } from "./i18n/index.js";

/** Return the result of a request; if it fails, show why and return null. */
export async function showErrors(request, show = showToast) {
  try {
    return await request();
  } catch (error) {
    show(errorText(error));
    return null;
  }
}
