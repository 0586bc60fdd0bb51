/* libFuzzer over the instrumented extensions: Python is embedded, tests.fuzz.targets says what is done with an input.

   Built with -fsanitize=fuzzer,address,undefined and -rdynamic: the extensions find the sanitizers' runtime here. The
   target's name comes from INFER_FUZZ. What a target raises ends the process, for libFuzzer to keep the input. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

static PyObject *target;

static void give_up(void)
{
    PyErr_Print();
    fflush(stderr);
    abort();
}

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *name = getenv("INFER_FUZZ");
    PyObject *module;
    Py_InitializeEx(0);
    module = PyImport_ImportModule("tests.fuzz.targets");
    if (module == NULL)
        give_up();
    target = PyObject_CallMethod(module, "target", "s", name != NULL ? name : "");
    if (target == NULL)
        give_up();
    Py_DECREF(module);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size_bytes)
{
    PyObject *result = PyObject_CallFunction(target, "y#", (const char *) data, (Py_ssize_t) size_bytes);
    if (result == NULL)
        give_up();
    Py_DECREF(result);
    return 0;
}
