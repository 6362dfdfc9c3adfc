// Lists the OpenCL devices that this process sees, adds two vectors on the first of them, and checks the sum.
//
// An ordinary OpenCL program: it knows nothing of Maestro. Run as a job, it sees what its worker bound it to.
// Exit status: 0 the sum is right, 1 it is wrong, 2 OpenCL does not work here.
#define CL_TARGET_OPENCL_VERSION 120
#include <CL/cl.h>
#include <stdio.h>
#include <stdlib.h>

#define ELEMENTS (1 << 20)
#define MOST 16

static const char *source = "kernel void add(global const float *a, global const float *b, global float *sum) {\n"
                            "    size_t i = get_global_id(0);\n"
                            "    sum[i] = a[i] + b[i];\n"
                            "}\n";

static void need(cl_int code, const char *what) {
    if (code == CL_SUCCESS) return;
    fprintf(stderr, "vector_sum: %s: OpenCL error %d\n", what, (int)code);
    exit(2);
}

static const char *name_of(cl_device_id device) {
    static char text[256];
    need(clGetDeviceInfo(device, CL_DEVICE_NAME, sizeof text, text, NULL), "a device's name");
    return text;
}

/// Prints every device of every platform; returns how many there are, and the first.
static unsigned list_devices(cl_device_id *first) {
    cl_platform_id platforms[MOST];
    cl_uint platform_count = 0;
    cl_int code = clGetPlatformIDs(MOST, platforms, &platform_count);
    if (code != CL_SUCCESS) platform_count = 0;
    unsigned total = 0;
    for (cl_uint p = 0; p < platform_count && p < MOST; p++) {
        cl_device_id devices[MOST];
        cl_uint count = 0;
        if (clGetDeviceIDs(platforms[p], CL_DEVICE_TYPE_ALL, MOST, devices, &count) != CL_SUCCESS) continue;
        char platform[256];
        need(clGetPlatformInfo(platforms[p], CL_PLATFORM_NAME, sizeof platform, platform, NULL), "a platform's name");
        for (cl_uint d = 0; d < count && d < MOST; d++) {
            if (total == 0) *first = devices[d];
            total++;
            printf("device %u: %s, %s\n", total, platform, name_of(devices[d]));
        }
    }
    printf("devices seen: %u\n", total);
    return total;
}

static void show(const char *variable) {
    const char *value = getenv(variable);
    if (value) printf("%s=%s\n", variable, value);
}

/// How many of the sums that the device computed are wrong.
static size_t add_vectors(cl_device_id device) {
    static float a[ELEMENTS], b[ELEMENTS], sum[ELEMENTS];
    for (size_t i = 0; i < ELEMENTS; i++) {
        a[i] = (float)(i % 1000);
        b[i] = (float)(i % 777) * 2;
    }
    cl_int code;
    cl_context context = clCreateContext(NULL, 1, &device, NULL, NULL, &code);
    need(code, "a context");
    cl_command_queue queue = clCreateCommandQueue(context, device, 0, &code);
    need(code, "a queue");
    cl_program program = clCreateProgramWithSource(context, 1, &source, NULL, &code);
    need(code, "a program");
    need(clBuildProgram(program, 1, &device, "", NULL, NULL), "compiling the kernel");
    cl_kernel kernel = clCreateKernel(program, "add", &code);
    need(code, "the kernel");

    cl_mem_flags given = CL_MEM_READ_ONLY | CL_MEM_COPY_HOST_PTR;
    cl_mem buffers[3];
    buffers[0] = clCreateBuffer(context, given, sizeof a, a, &code);
    need(code, "a buffer");
    buffers[1] = clCreateBuffer(context, given, sizeof b, b, &code);
    need(code, "a buffer");
    buffers[2] = clCreateBuffer(context, CL_MEM_WRITE_ONLY, sizeof sum, NULL, &code);
    need(code, "a buffer");
    for (cl_uint i = 0; i < 3; i++) need(clSetKernelArg(kernel, i, sizeof buffers[i], &buffers[i]), "an argument");

    size_t size = ELEMENTS;
    need(clEnqueueNDRangeKernel(queue, kernel, 1, NULL, &size, NULL, 0, NULL, NULL), "running the kernel");
    need(clEnqueueReadBuffer(queue, buffers[2], CL_TRUE, 0, sizeof sum, sum, 0, NULL, NULL), "reading the sum");

    size_t wrong = 0;
    for (size_t i = 0; i < ELEMENTS; i++) wrong += sum[i] != a[i] + b[i];

    for (int i = 0; i < 3; i++) clReleaseMemObject(buffers[i]);
    clReleaseKernel(kernel);
    clReleaseProgram(program);
    clReleaseCommandQueue(queue);
    clReleaseContext(context);
    return wrong;
}

int main(void) {
    show("GPU_ID");
    show("GPU_VENDOR");
    show("GPU_PCI_ADDRESS");
    show("POCL_DEVICES");
    show("GPU_BINDING_REPLACED");
    cl_device_id device = NULL;
    if (list_devices(&device) == 0) {
        fprintf(stderr, "vector_sum: no OpenCL device: is an ICD such as pocl-opencl-icd installed?\n");
        return 2;
    }
    size_t wrong = add_vectors(device);
    if (wrong > 0) {
        printf("sum of %d elements: WRONG at %zu\n", ELEMENTS, wrong);
        return 1;
    }
    printf("sum of %d elements: right\n", ELEMENTS);
    return 0;
}
